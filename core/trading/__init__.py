"""Trading: what may be sent to a venue, decided without asking anybody."""
