"""ST-XCT (Chen et al., ACM MM 2023): what it adds to DCVC-HEM."""
