"""What applications that give words tags share: tables, windows, network, tags and entities."""
