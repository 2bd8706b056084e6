"""DCVC-MIP (Qi et al., CVPR 2023): motion information propagation on top of DCVC-HEM."""
