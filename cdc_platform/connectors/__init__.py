"""The desired Debezium configuration, one module per engine."""
