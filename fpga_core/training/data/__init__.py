"""The data of a training: data sets, their samples and batches."""
