"""How each connector is, and what is done about those that are not well. Pure."""
