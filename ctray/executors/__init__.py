"""Runs the work of a run: in plain processes of this machine, or on Ray.

`protocol` says what an executor does, `session` opens one, and each folder holds one executor.
`local/` and `ray/` have the same modules (`executor`, `pool`, `training`, `self_training`), and
what only they need beside them.

To add an executor, write a module with a class that has the methods of `protocol.Executor` and a
function `session` that opens it, and add one line to `session.EXECUTORS`. The tests in
`tests/executors/test_contract.py` then run over it.
"""
