"""Jobs on a cluster: submitted, described to Kubernetes, followed."""
