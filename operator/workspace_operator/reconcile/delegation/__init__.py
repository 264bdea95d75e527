"""What connects a delegation's pure plan with the Kubernetes API, the agents and the queue before each of them."""
