"""What must not change for users by accident, recorded as readable files in `golden/`.

`python -m tests.surface` records anew; `test_surface.py` compares.
"""
