"""JSON Object Signing: access tokens and their keys."""
