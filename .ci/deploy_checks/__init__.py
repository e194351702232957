"""What `make check-deploy` looks at: what `cluster/` has besides Python, without a cluster.

Each module is one subject. A check is a function that returns what is wrong, a sentence each; none
is right. `python -m deploy_checks` runs all of them, `python -m deploy_checks charts` one subject.
"""
