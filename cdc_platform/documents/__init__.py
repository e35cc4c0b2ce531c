"""Documents to topology values and back: JSON in znodes, YAML in the topology file."""

from cdc_platform.documents.layout import Layout
from cdc_platform.documents.yaml_file import dump_yaml, load_yaml, parse_yaml

__all__ = ["Layout", "dump_yaml", "load_yaml", "parse_yaml"]
