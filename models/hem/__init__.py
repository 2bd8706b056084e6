"""DCVC-HEM (Li et al., ACM MM 2022)."""
