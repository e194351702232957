"""``ztom gate``: does the candidate ship?"""
