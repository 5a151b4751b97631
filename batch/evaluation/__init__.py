"""The harness that measures quality: any data set, any protocol, always through the modules that serve."""
