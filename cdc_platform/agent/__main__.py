"""`python -m cdc_platform.agent`."""

from cdc_platform.agent.command import main

main()
