"""What a review of 0.1 found that one user of the platform could do to others: each has tests that try it."""

from __future__ import annotations

import ast

import pytest

from tests.surface.packaging import ROOT

_ATTACKS = "tests/security/attacks"
FINDINGS = {
    "1 a dataset's author has the platform's passwords sent to a server": [
        f"{_ATTACKS}/test_secrets_of_others.py::test_the_control_plane_resolves_no_secret_of_others",
        f"{_ATTACKS}/test_hostile_author.py::test_an_author_gets_nothing_of_others",
    ],
    "2 connector options name files, classes and hosts": [
        f"{_ATTACKS}/test_connector_options.py::test_an_option_that_reaches_beyond_the_dataset_is_refused",
    ],
    "3 a new leader gets the password, in clear": [
        f"{_ATTACKS}/test_addresses.py::test_a_login_goes_to_no_server_that_does_not_prove_itself",
        f"{_ATTACKS}/test_passwords_in_clear.py::test_a_mysql_server_gets_no_password_in_clear",
        f"{_ATTACKS}/test_passwords_in_clear.py::test_a_postgres_server_gets_no_password_in_clear",
    ],
    "4 Connect's password goes to any URL of a cluster": [
        f"{_ATTACKS}/test_addresses.py::test_connect_hosts_and_logins_are_the_operators",
        f"{_ATTACKS}/test_connect_logins.py::test_a_login_does_not_go_over_plain_http",
    ],
    "5 a dataset changes any topic of the Kafka cluster": [
        f"{_ATTACKS}/test_topics_of_others.py::test_a_topic_that_others_made_is_not_changed_and_nothing_writes_to_it",
        f"{_ATTACKS}/test_topics_of_others.py::test_reserved_names_are_refused_whatever_the_operator_permits",
    ],
    "6 a connector's config chooses which topic is deleted": [
        f"{_ATTACKS}/test_topics_of_others.py::test_a_connector_s_config_does_not_choose_which_topic_is_deleted",
    ],
    "7 the condition of a backfill is SQL, and a launcher passes the guardrails": [
        f"{_ATTACKS}/test_conditions_of_backfills.py::test_nothing_but_columns_comparisons_and_literals_comes_through",
        f"{_ATTACKS}/test_launchers.py::test_an_operator_can_keep_launchers_within_the_guardrails",
    ],
    "8 functions of a database's owner run as the connector's user": [
        f"{_ATTACKS}/test_source_owner_stack.py::test_a_proof_runs_nothing_of_the_databases_owner",
    ],
    "9 resolved secrets stand in Connect's answers and traces": [
        f"{_ATTACKS}/test_text_of_strangers.py::test_secrets_stay_behind",
    ],
    "10 one deep record stops readers, a forged generation all writers": [
        f"{_ATTACKS}/test_hostile_records.py::test_no_reader_ends_at_a_broken_record",
        f"{_ATTACKS}/test_hostile_records.py::test_a_forged_generation_fences_nobody",
    ],
    "11 who may write where in Kafka is not said": [
        "tests/security/test_acl_lists_stack.py::test_each_forbidden_act_fails_on_the_server",
    ],
    "12 every agent has all rights in ZooKeeper, over a connection in clear": [
        "tests/clients/zookeeper/test_tls_and_acls_stack.py::test_agents_read_and_write_only_their_own_znode",
        "tests/clients/zookeeper/test_tls_and_acls_stack.py::test_nothing_is_said_to_a_zookeeper_that_does_not_prove_itself",
    ],
    "13 a dataset's author blocks new shards of all": [
        f"{_ATTACKS}/test_hostile_records.py::test_a_shard_s_author_leaves_room_for_the_generations_of_others",
    ],
    "14 pages of Data Docs run scripts, and lie where a launcher says": [
        f"{_ATTACKS}/test_data_docs.py::test_values_are_text_before_a_page_is_made_of_them",
        f"{_ATTACKS}/test_launchers.py::test_run_configs_name_no_directory",
    ],
    "15 plain secrets are taken": [
        f"{_ATTACKS}/test_plain_secrets.py::test_no_depth_hides_one",
        f"{_ATTACKS}/test_plain_secrets.py::test_a_setting_that_is_a_secret_is_a_reference_as_a_whole",
    ],
    "16 a rotated password needs a restart": [
        "tests/clients/zookeeper/test_login_rotation_stack.py::test_a_session_logs_in_again_with_a_rotated_password",
        f"{_ATTACKS}/test_addresses.py::test_connect_hosts_and_logins_are_the_operators",
    ],
    "an archive's links lead out of its directory": ["tests/local/test_unpacking.py::test_nothing_is_written_outside"],
    "texts are markup, control characters and calls": [
        f"{_ATTACKS}/test_text_of_strangers.py::test_markdown_has_no_markup_of_strangers",
        f"{_ATTACKS}/test_text_of_strangers.py::test_a_terminal_is_not_controlled",
        f"{_ATTACKS}/test_text_of_strangers.py::test_an_alert_calls_nobody_and_links_nowhere",
    ],
    "answers of Connect have no end": [f"{_ATTACKS}/test_hostile_connect.py::test_every_question_to_connect_ends"],
    "regular expressions take for ever": [
        f"{_ATTACKS}/test_patterns.py::test_patterns_that_could_take_long_are_refused"
    ],
    "settings of the current directory are taken": [
        "tests/test_settings.py::test_a_file_of_the_current_directory_is_taken_with_a_warning",
    ],
    "references to devices and large files are read": [
        "tests/security/test_hostile_input.py::test_references_to_devices_and_large_files_are_refused",
    ],
}


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_is_tried(finding: str) -> None:
    assert FINDINGS[finding]
    for test in FINDINGS[finding]:
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
