"""What `deploy/check.py` holds the deployment files to. A check returns problems, one line each."""
