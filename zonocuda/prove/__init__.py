"""Proofs of one region's rows, their certificates, and the bounds that splitting asks for."""
