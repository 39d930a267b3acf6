"""Measurements that anyone can repeat: `workbench bench NAME`."""
