"""The handlers of request states. Each decides; the worker writes what it returns."""
