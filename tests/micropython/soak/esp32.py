# The IDF's heap as it is with room for TLS.
HEAP_DATA = 4


def idf_heap_info(capabilities):
    return [(200000, 100000, 60000, 50000)]
