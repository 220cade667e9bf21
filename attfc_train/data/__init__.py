"""Face data: data sets, the attention loader, batches."""
