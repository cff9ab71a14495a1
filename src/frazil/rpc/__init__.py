"""The wire: server and client set-up, errors across it, configuration and logging. Proto and model meet only in `convert`."""
