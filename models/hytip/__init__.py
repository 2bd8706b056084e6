"""HyTIP (ICCV 2025)."""
