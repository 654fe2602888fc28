"""Data sets of other formats, once to records: webdataset tars, parquet, Arrow folders, LMDB."""
