"""Checks that nothing is missing, before the long work of the pipeline. Nothing is fetched or written."""

from ssd.params import Params
from ssd.preflight.devices import check_devices
from ssd.preflight.ensemble import check_ensemble, check_further_models
from ssd.preflight.finding import Finding, collected
from ssd.preflight.network import check_network
from ssd.preflight.sources import check_source
from ssd.preflight.space import Places, check_space, list_needs


def find_missing(params: Params, weights: str, places: Places) -> list[Finding]:
    """Look for weights, data, disk space and devices; return what is missing, [] if nothing is.

    Args:
        params: all sections.
        weights: `model.weights`, a file's path made absolute.
        places: the folders of the pipeline.
    """
    findings = check_network(params.model, weights)
    with collected(findings):
        findings += check_source(params.data, places.raw, places.root)
    with collected(findings):  # the same error as before, or a folder that cannot be read
        findings += check_space(list_needs(params.data, params.preprocess, places))
    findings += check_devices(params.train, params.evaluate)
    findings += check_ensemble(params.train, params.evaluate)
    findings += check_further_models(params.data, params.evaluate, places.root)
    return list(dict.fromkeys(findings))
