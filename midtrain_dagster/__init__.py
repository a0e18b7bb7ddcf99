"""The work behind the assets: plain Python over documents, tables and models."""

from midtrain_dagster import machine_code

machine_code.keep()  # here, for numba may be imported with any module of the package, and it asks once
