"""The report: finished runs beside their baselines and the published scores, as tables and plots."""
