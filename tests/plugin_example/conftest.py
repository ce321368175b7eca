"""The example is run by tests/test_pytest_plugin.py, in a pytest of its own; the suite around it leaves it alone."""

collect_ignore = ["test_app.py"]
