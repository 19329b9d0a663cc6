"""`bega bench`: the gateway as shipped, measured from outside beside a floor. How to read it: docs/bench.md."""
