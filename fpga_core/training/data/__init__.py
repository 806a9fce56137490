"""What training learns from: data sets, their samples and batches."""
