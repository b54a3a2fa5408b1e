"""Networks: loading, training, exporting them."""
