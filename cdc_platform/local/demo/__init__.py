"""The demo: two sharded datasets on the local stack, kept up by Dagster, judged by an independent count."""

from cdc_platform.local.demo.run import DemoOptions, run_demo
from cdc_platform.local.demo.summary import Summary

__all__ = ["DemoOptions", "Summary", "run_demo"]
