"""What the operator serves over HTTP: probes for kubelet, metrics for Prometheus."""
