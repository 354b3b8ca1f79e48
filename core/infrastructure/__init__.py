"""The Central Hub and its three neighbours: Import Manager, Config Manager, ErrorDNA."""
