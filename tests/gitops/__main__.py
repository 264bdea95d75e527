"""Writes what is generated in deploy/gitops: the ConfigMap fragment, and the table of verdicts."""

from tests.gitops import customizations, judge, states, table

if __name__ == "__main__":
    customizations.CONFIG_MAP.write_text(customizations.render())
    known = states.every()
    verdicts = judge.Judge(judge.program())([state.object for state in known])
    table.README.write_text(table.filled(table.render(known, verdicts)))
