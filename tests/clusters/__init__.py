"""Stand-ins for clusters: a batch system of small programs and a Kubernetes API server; both run what they are given."""
