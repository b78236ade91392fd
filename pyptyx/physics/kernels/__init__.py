"""physics/kernels"""
