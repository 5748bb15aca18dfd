"""Sends a run's figures to the tracker that the user chose. Nothing here can fail a run, and nothing leaves unredacted.

`mirror.py` is what a run holds; a service per tracker stands behind it (`wandb_service.py`, `accelerate_service.py`).
`naming.py` and `figures.py` say what a run is called and which figures of it are sent, the same for every tracker.
"""
