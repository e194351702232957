"""The gate: does the candidate ship?"""
