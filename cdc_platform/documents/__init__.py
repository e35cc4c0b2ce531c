"""Documents to topology values and back: JSON in znodes, YAML in the topology file."""

from cdc_platform.documents.topology_file import dump_yaml, load_yaml, parse_yaml
from cdc_platform.documents.zookeeper_paths import Layout

__all__ = ["Layout", "dump_yaml", "load_yaml", "parse_yaml"]
