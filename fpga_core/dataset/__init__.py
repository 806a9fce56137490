"""What decides whether a picture belongs in a training set, and how it is cut: measures of one picture and of many."""
