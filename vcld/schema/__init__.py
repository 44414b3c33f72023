"""The VCL schema: models, seed rows, our own tables, engine and retry."""
