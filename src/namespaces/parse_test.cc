#include "namespaces/parse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "config/schema.h"

namespace prism {
namespace {

using config::Diagnostics;
using config::Node;
using testing::ElementsAre;
using testing::HasSubstr;

struct Connection {
  std::optional<Node> brokers, host, database;
};

const config::Schema<Connection>& connection() {
  static const auto schema = config::Schema<Connection>("connection", "For tests.")
                                 .field(&Connection::brokers, "brokers", config::Any{}, "Addresses.")
                                 .field(&Connection::host, "host", config::Any{}, "A host.")
                                 .field(&Connection::database, "database", config::Any{}, "A database.");
  return schema;
}

// A program with the claim-check and outbox patterns. They accept any options but `bad`, so that what is proved here is
// where options may stand, not what they mean.
const Components& sample() {
  static const Components components = [] {
    Components out;
    const auto validate = [](const Node& options, Diagnostics& diagnostics) {
      if (const auto* bad = options.entry("bad")) {
        diagnostics.error(bad->key_position, options.path_of("bad"), "UNKNOWN_OPTION", "unknown option 'bad'");
      }
    };
    for (const std::string_view name : {"claim-check", "outbox"}) {
      PatternType type;
      type.info = prism::components().pattern(name)->info;
      type.info.shape = nullptr;  // of real options
      type.validate = validate;
      out.patterns.push_back(std::move(type));
    }
    const auto backend = [](std::string_view name, std::vector<std::string_view> capabilities) {
      BackendType type;
      type.name = name;
      type.capabilities = std::move(capabilities);
      return type;
    };
    out.backends = {backend("kafka", {"event-log"}), backend("postgres", {"sql-database", "key-value-store"}),
                    backend("s3", {"object-store"}), backend("redis", {"event-log", "key-value-store"}),
                    backend("sqlite", {"event-log", "sql-database", "key-value-store"})};
    for (BackendType& type : out.backends) {
      type.options = connection().shared_info();
      type.validate = connection().validator();
    }
    BackendType nats = backend("nats", {"event-log"});
    nats.aliases = {"nats-jetstream"};
    out.backends.push_back(std::move(nats));
    return out;
  }();
  return components;
}

ParsedFile parse(std::string_view text) {
  config::LoadOptions options;
  options.file_name = "p.yaml";
  return parse_text(text, sample(), options);
}

// The one namespace of a text that must be right.
NamespaceSpec only(std::string_view text) {
  ParsedFile parsed = parse(text);
  EXPECT_TRUE(parsed.ok()) << text << "\n" << format_text(parsed.diagnostics);
  EXPECT_EQ(parsed.file.namespaces.size(), 1U);
  return parsed.file.namespaces.empty() ? NamespaceSpec{} : parsed.file.namespaces[0];
}

// "storage.bucket" of a pattern's options as text; "-" if there is none.
std::string option(const NamespaceSpec& spec, std::string_view pattern, std::string_view path) {
  for (const PatternSpec& candidate : spec.patterns) {
    if (candidate.type != pattern) continue;
    Node node = candidate.options;
    while (!path.empty()) {
      const std::size_t dot = path.find('.');
      const Node* next = node.find(path.substr(0, dot));
      if (next == nullptr) return "-";
      node = *next;
      path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
    }
    return node.text();
  }
  return "no such pattern";
}

std::string types(const NamespaceSpec& spec) {
  std::string out;
  for (const PatternSpec& pattern : spec.patterns)
    out += (out.empty() ? "" : " ") + pattern.type + (pattern.enabled ? "" : "(off)");
  return out;
}

// ---- the RFCs' examples of what is built
// -------------------------------------------------------------------------------------

// proves: F-02, F-11, F-19, F-10
TEST(ParseRfc009, ClaimCheckWithCleanupBeside) {
  const auto spec = only(R"(
namespaces:
  - name: video-processing-events
    pattern: claim-check
    backend: kafka

    claim_check:
      threshold: 1MB  # Payloads > 1MB go to S3
      storage:
        backend: s3
        bucket: prism-claim-checks
        prefix: video-events/
        ttl: 604800
      message:
        include_metadata: true
        compression: gzip

    cleanup:
      on_consume: true
)");
  EXPECT_EQ(types(spec), "claim-check");
  EXPECT_EQ(spec.backend.name, "kafka");
  EXPECT_EQ(option(spec, "claim-check", "threshold"), "1MB");
  EXPECT_EQ(option(spec, "claim-check", "storage.prefix"), "video-events/");
  EXPECT_EQ(option(spec, "claim-check", "cleanup.on_consume"), "true");
  EXPECT_EQ(spec.patterns[0].options.find("cleanup")->path(), "namespaces[0].cleanup");
  EXPECT_EQ(spec.api(), ClientApi::pubsub);
  EXPECT_TRUE(spec.serves(ClientApi::queue));
  EXPECT_FALSE(spec.serves(ClientApi::transact));
  EXPECT_FALSE(spec.serves(ClientApi::reader));
}

// proves: F-26 for the example that cannot load as printed (R-03)
TEST(ParseRfc009, TheClaimCheckExampleAsPrintedHasADuplicateKey) {
  const auto parsed = parse(
      "namespaces:\n  - name: a\n    pattern: claim-check\n    backend: kafka\n    cleanup:\n"
      "      on_consume: true\n      # OR\n      on_consume: false\n      retention: 604800\n");
  EXPECT_FALSE(parsed.ok());
  ASSERT_EQ(parsed.diagnostics.items().size(), 1U);
  EXPECT_EQ(parsed.diagnostics.items()[0].reason, "DUPLICATE_KEY");
  EXPECT_THAT(parsed.diagnostics.items()[0].message, HasSubstr("line 6 and in line 8"));
}

// proves: F-02, F-17, F-18, F-25
TEST(ParseRfc009, OutboxWithDatabaseBesideAndPublisherInside) {
  const auto spec = only(R"(
namespaces:
  - name: order-service
    pattern: outbox
    database:
      backend: postgres
    outbox:
      table: outbox
      schema: |
        CREATE TABLE outbox (id BIGSERIAL PRIMARY KEY);
      publisher:
        mode: polling
        interval: 100ms
        destination:
          backend: kafka
          topic_pattern: "{event_type}"
        cleanup:
          strategy: delete
)");
  EXPECT_EQ(option(spec, "outbox", "database.backend"), "postgres");
  EXPECT_EQ(option(spec, "outbox", "table"), "outbox");
  EXPECT_EQ(option(spec, "outbox", "schema"), "CREATE TABLE outbox (id BIGSERIAL PRIMARY KEY);\n");
  EXPECT_EQ(option(spec, "outbox", "publisher.cleanup.strategy"), "delete");
  EXPECT_TRUE(spec.backend.name.empty());
  EXPECT_TRUE(spec.serves(ClientApi::transact));
}

// proves: F-03, X-02
TEST(ParseRfc009, ClaimCheckAndPubSub) {
  const auto spec = only(R"(
namespaces:
  - name: video-processing
    patterns:
      - claim-check   # Layer 1: Handle large payloads
      - pub-sub       # Layer 2: Multiple consumers
    backend: kafka
    claim_check:
      threshold: 1MB
      storage:
        backend: s3
        bucket: video-processing
      claim_check_field: "s3_reference"
    pub_sub:
      consumer_groups:
        - name: thumbnail-generator
        - name: transcoder
        - name: metadata-extractor
)");
  EXPECT_EQ(types(spec), "claim-check");
  EXPECT_TRUE(spec.pub_sub);
  EXPECT_THAT(spec.consumer_groups, ElementsAre("thumbnail-generator", "transcoder", "metadata-extractor"));
  EXPECT_EQ(option(spec, "claim-check", "claim_check_field"), "s3_reference");
}

// proves: F-03, F-18
TEST(ParseRfc009, OutboxAndClaimCheckWithPublisherBeside) {
  const auto spec = only(R"(
namespaces:
  - name: ml-model-releases
    patterns:
      - outbox       # Layer 1: Transactional guarantees
      - claim-check  # Layer 2: Handle large model files
    database:
      backend: postgres
    outbox:
      table: model_outbox
    claim_check:
      threshold: 10MB
      storage:
        backend: s3
        bucket: ml-models
      claim_check_field: "model_s3_path"
    publisher:
      destination:
        backend: kafka
        topic: model-releases
)");
  EXPECT_EQ(types(spec), "outbox claim-check");
  EXPECT_EQ(option(spec, "outbox", "publisher.destination.topic"), "model-releases");
  EXPECT_EQ(option(spec, "outbox", "database.backend"), "postgres");
  EXPECT_EQ(option(spec, "outbox", "threshold"), "-");
  EXPECT_EQ(option(spec, "claim-check", "threshold"), "10MB");
  EXPECT_EQ(option(spec, "claim-check", "publisher"), "-");
}

// proves: F-04, F-09, F-13
TEST(ParseRfc014, LayerTwo) {
  const auto spec = only(R"(
namespaces:
  - name: video-processing
    client_api: pubsub
    patterns:
      - type: claim-check
        threshold: 1MB
        storage: s3
        bucket: video-processing
      - type: outbox
        table: video_outbox
        database: postgres
    backend:
      queue: kafka
      topic_prefix: video
)");
  EXPECT_EQ(types(spec), "claim-check outbox");
  EXPECT_EQ(option(spec, "claim-check", "storage"), "s3");
  EXPECT_EQ(option(spec, "claim-check", "bucket"), "video-processing");
  EXPECT_EQ(option(spec, "outbox", "database"), "postgres");
  EXPECT_EQ(option(spec, "outbox", "type"), "-");
  EXPECT_EQ(spec.backend.name, "kafka");
  EXPECT_EQ(spec.backend.topic_prefix, "video");
  EXPECT_EQ(spec.api(), ClientApi::pubsub);
  EXPECT_FALSE(spec.serves(ClientApi::queue));  // a given API is the only one
}

// proves: F-05, F-06, F-12
TEST(ParseRfc014, ConfigurationSchema) {
  const auto spec = only(R"(
namespaces:
  - name: video-processing
    client_api: pubsub
    patterns:
      - type: outbox
        enabled: true
        config:
          database: postgres
          table: video_outbox
          publisher:
            interval: 100ms
            batch_size: 100
      - type: claim-check
        enabled: true
        config:
          threshold: 1MB
          storage:
            backend: s3
            bucket: prism-claim-checks
            prefix: videos/
          compression: gzip
          cleanup:
            strategy: on_consume
            ttl: 604800
      - type: tiered-storage
        enabled: false  # Optional pattern
    backend:
      type: kafka
      brokers: [kafka-1:9092, kafka-2:9092]
      topic: videos
      partitions: 10
      replication: 3
    observability:
      trace_patterns: true
      pattern_metrics: false
)");
  EXPECT_EQ(types(spec), "outbox claim-check tiered-storage(off)");
  EXPECT_EQ(option(spec, "outbox", "publisher.batch_size"), "100");
  EXPECT_EQ(option(spec, "outbox", "config"), "-");
  EXPECT_EQ(option(spec, "claim-check", "cleanup.strategy"), "on_consume");
  EXPECT_EQ(spec.patterns[1].options.find("threshold")->path(), "namespaces[0].patterns[1].config.threshold");
  EXPECT_FALSE(spec.has_pattern("tiered-storage"));
  EXPECT_EQ(spec.backend.name, "kafka");
  EXPECT_EQ(spec.backend.topic, "videos");
  EXPECT_EQ(spec.backend.partitions, 10U);
  EXPECT_EQ(spec.backend.replication, 3U);
  EXPECT_EQ(spec.backend.options.find("brokers")->items().size(), 2U);
  EXPECT_EQ(spec.backend.options.entries().size(), 1U);
  EXPECT_TRUE(spec.observability.trace_patterns);
  EXPECT_FALSE(spec.observability.pattern_metrics);
}

// proves: K-04 (as far as the file goes), X-24: both orders of the file are kept and accepted
TEST(ParseRfc014, EndToEndConfiguration) {
  const auto spec = only(R"(namespaces: [{name: test, client_api: pubsub, patterns: [
    {type: outbox, database: postgres}, {type: claim-check, threshold: 1MB, storage: s3}], backend: {type: kafka}}])");
  EXPECT_EQ(types(spec), "outbox claim-check");
  EXPECT_EQ(spec.backend.name, "kafka");
}

// proves: F-26 (R-04)
TEST(ParseRfc014, TwoBackendsInOneNamespaceAreRefused) {
  const auto parsed =
      parse("namespaces:\n- name: a\n  backend: kafka\n  patterns:\n    - type: claim-check\n  backend: kafka\n");
  EXPECT_TRUE(parsed.diagnostics.has("DUPLICATE_KEY"));
}

// ---- spellings
// -----------------------------------------------------------------------------------------------------------------

TEST(ParseNamespace, NoPatternIsABareLog) {
  const auto spec = only("namespaces: [{name: events, backend: kafka}]");
  EXPECT_TRUE(spec.patterns.empty());
  EXPECT_EQ(spec.api(), ClientApi::pubsub);
  EXPECT_EQ(only("namespaces: [{name: events, backend: multi, pattern: outbox, "
                 "publisher: {destination: {backend: kafka}}}]")
                .backend.name,
            "");
  EXPECT_EQ(only("namespaces: [{name: events, backend: nats-jetstream}]").backend.name, "nats-jetstream");
}

// proves: F-07
TEST(ParseNamespace, EveryPatternNameIsKnown) {
  for (const std::string name : {"tiered-storage", "write-ahead-log", "claim-check", "event-sourcing",
                                 "change-data-capture", "cdc", "cqrs", "outbox", "pub-sub", "cache", "wal"}) {
    const auto parsed = parse("namespaces: [{name: a, backend: kafka, pattern: " + name + "}]");
    EXPECT_FALSE(parsed.diagnostics.has("UNKNOWN_PATTERN")) << name;
    const bool built = name == "claim-check" || name == "outbox" || name == "pub-sub";
    EXPECT_EQ(parsed.diagnostics.has("PATTERN_NOT_AVAILABLE"), !built) << name;
  }
  EXPECT_EQ(only("namespaces: [{name: a, backend: kafka, patterns: [{type: wal, enabled: false}]}]").patterns[0].type,
            "write-ahead-log");
}

TEST(ParseNamespace, BackendsByNameAndType) {
  const auto parsed = parse(R"(
server: {listen: "0.0.0.0:8980", data_dir: /var/lib/prism}
backends:
  main: {type: kafka, brokers: [a:1]}
  postgres: {host: db}
  files: sqlite
namespaces:
  - {name: a, backend: main}
  - {name: b, backend: {name: main, topic: t}, state: postgres}
  - {name: c, backend: {type: main}}
)");
  ASSERT_TRUE(parsed.ok()) << format_text(parsed.diagnostics);
  EXPECT_EQ(parsed.file.server.listen, "0.0.0.0:8980");
  EXPECT_EQ(parsed.file.server.data_dir, "/var/lib/prism");
  EXPECT_FALSE(parsed.file.server.admin);
  ASSERT_EQ(parsed.file.backends.size(), 3U);
  EXPECT_EQ(parsed.file.backend("main")->type, "kafka");
  EXPECT_EQ(parsed.file.backend("main")->options.entries().size(), 1U);
  EXPECT_EQ(parsed.file.backend("postgres")->type, "postgres");
  EXPECT_EQ(parsed.file.backend("files")->type, "sqlite");
  EXPECT_EQ(parsed.file.find("b")->backend.name, "main");
  EXPECT_EQ(parsed.file.find("b")->state, "postgres");
  EXPECT_EQ(parsed.file.find("c")->backend.name, "main");
}

TEST(ParseNamespace, TheApiFollowsFromThePatterns) {
  const auto api = [](std::vector<std::string> patterns) {
    NamespaceSpec spec;
    for (std::string& name : patterns) spec.patterns.push_back({std::move(name), true, {}, {}});
    return spec.api();
  };
  // proves: F-10 (R-25)
  EXPECT_EQ(api({"write-ahead-log", "tiered-storage"}), ClientApi::keyvalue);
  EXPECT_EQ(api({"event-sourcing"}), ClientApi::events);
  EXPECT_EQ(api({"cqrs", "change-data-capture"}), ClientApi::views);
  EXPECT_EQ(api({"change-data-capture"}), ClientApi::none);
  EXPECT_EQ(api({"outbox", "claim-check", "tiered-storage", "change-data-capture"}), ClientApi::pubsub);
}

TEST(ParseNamespace, ADisabledPatternNeedsNoOptionsButThoseGivenAreChecked) {
  EXPECT_TRUE(
      parse("namespaces: [{name: a, backend: kafka, patterns: [{type: outbox, enabled: false}], outbox: {table: t}}]")
          .ok());
  EXPECT_FALSE(
      parse("namespaces: [{name: a, backend: kafka, patterns: [{type: outbox, enabled: false, bad: 1}]}]").ok());
}

// ---- mistakes
// --------------------------------------------------------------------------------------------------------------------

TEST(ParseMistakes, AreAllToldAtOnceAtTheirPlaces) {
  const auto parsed = parse(R"(namespaces:
  - name: Orders
    patern: outbox
  - name: a
    patterns: [claim-chekc, wal, {type: outbox, table: t, config: {table: u}}, outbox, {enabled: true}]
    backend: kafak
  - name: a
    pattern: claim-check
    claim_check: {bad: 1}
    publisher: {interval: 1s}
    backend: {type: kafka, topc: x}
    client_api: pub
  - name: b
    patterns: [pub-sub]
    pub_sub: {consumer_groups: [{name: g}, g]}
    client_api: queue
    backend: kafka
)");
  EXPECT_EQ(
      format_text(parsed.diagnostics),
      R"(p.yaml:2:11: error: 'Orders' is not a namespace name: 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit [INVALID_VALUE]
  hint: did you mean 'orders'?
p.yaml:3:5: error: unknown option 'patern' in namespace [UNKNOWN_OPTION]
  hint: did you mean 'pattern'?
p.yaml:5:16: error: there is no pattern 'claim-chekc' [UNKNOWN_PATTERN]
  hint: did you mean 'claim-check'?
p.yaml:5:29: error: the pattern 'write-ahead-log' is not available in this version of Prism [PATTERN_NOT_AVAILABLE]
  hint: remove it, or set enabled: false; available are claim-check, outbox, pub-sub
p.yaml:5:41: error: outbox and write-ahead-log would each be the first durable place of a write [INCOMPATIBLE_PATTERN]
  hint: give them namespaces of their own, or disable one
p.yaml:5:68: error: 'table' of the pattern 'outbox' is also given in line 5 [DUPLICATE_OPTION]
  hint: keep one of them
p.yaml:5:80: error: the pattern 'outbox' is given twice; it also stands in line 5 [DUPLICATE_PATTERN]
  hint: keep one of them
p.yaml:5:88: error: 'type' is missing in this pattern [MISSING_OPTION]
  hint: type: claim-check, or another pattern
p.yaml:6:14: error: there is no backend 'kafak': neither an entry under 'backends:' nor a type [UNKNOWN_BACKEND]
  hint: did you mean 'kafka'?
p.yaml:7:11: error: there are two namespaces 'a'; the other is named in line 4 [DUPLICATE_NAMESPACE]
  hint: give each its own name
p.yaml:9:19: error: unknown option 'bad' [UNKNOWN_OPTION]
p.yaml:10:5: error: 'publisher' belongs to the pattern outbox, which this namespace does not have [SECTION_WITHOUT_PATTERN]
  hint: add outbox to the patterns, or remove the section
p.yaml:11:28: error: unknown option 'topc' in backend [UNKNOWN_OPTION]
  hint: did you mean 'topic'?
p.yaml:12:17: error: 'pub' is not one of pubsub, queue, transact, reader, keyvalue, cache, events, views [INVALID_VALUE]
p.yaml:15:44: error: the consumer group 'g' is given twice [DUPLICATE_GROUP]
  hint: keep one of them
p.yaml:16:17: error: the pub-sub pattern means client_api pubsub, but queue is given [CLIENT_API_CONFLICT]
  hint: remove one of the two
)");
}

TEST(ParseMistakes, EachHasItsReason) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "MISSING_OPTION"},
      {"[]", "WRONG_TYPE"},
      {"namespaces: x", "WRONG_TYPE"},
      {"namespaces: [x]", "WRONG_TYPE"},
      {"namespaces:", "WRONG_TYPE"},
      {"nmespaces: []", "UNKNOWN_OPTION"},
      {"name: a\npattern: outbox", "MISSING_OPTION"},
      {"namespaces: [{backend: kafka}]", "MISSING_OPTION"},
      {"namespaces: [{name: a}, {name: a}]", "DUPLICATE_NAMESPACE"},
      {"namespaces: [{name: -a}]", "INVALID_VALUE"},
      {"namespaces: [{name: a, pattern: outbox, patterns: [outbox]}]", "CONTRADICTING_OPTIONS"},
      {"namespaces: [{name: a, pattern: [outbox]}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, patterns: outbox}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, patterns: [[outbox]]}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, patterns: [{type: outbox, enabled: perhaps}]}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, patterns: [{type: outbox, config: x}]}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, pattern: outbox, outbox: x}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, patterns: [wal, write-ahead-log]}]", "DUPLICATE_PATTERN"},
      {"namespaces: [{name: a, patterns: [{type: claim-check, cleanup: {}}], cleanup: {}}]", "DUPLICATE_OPTION"},
      {"namespaces: [{name: a, backend: {topic: x}}]", "MISSING_OPTION"},
      {"namespaces: [{name: a, backend: {type: kafka, queue: kafka}}]", "CONTRADICTING_OPTIONS"},
      {"namespaces: [{name: a, backend: {type: kafka, topic: x, topic_prefix: y}}]", "CONTRADICTING_OPTIONS"},
      {"namespaces: [{name: a, backend: {type: kafka, partitions: 0}}]", "OUT_OF_RANGE"},
      {"namespaces: [{name: a, backend: [kafka]}]", "WRONG_TYPE"},
      {"namespaces: [{name: a, state: nowhere}]", "UNKNOWN_BACKEND"},
      {"namespaces: []\nbackends: {main: {brokers: x}}", "UNKNOWN_BACKEND"},
      {"namespaces: []\nbackends: {main: {type: kafkaa}}", "UNKNOWN_BACKEND"},
      {"namespaces: []\nbackends: [kafka]", "WRONG_TYPE"},
      {"namespaces: []\nbackends: {main: [kafka]}", "WRONG_TYPE"},
      {"namespaces: []\nserver: {listen: here}", "INVALID_VALUE"},
      {"namespaces: []\nserver: {port: 1}", "UNKNOWN_OPTION"},
  };
  for (const auto& [text, reason] : cases) {
    const auto parsed = parse(text);
    EXPECT_FALSE(parsed.ok()) << text;
    EXPECT_TRUE(parsed.diagnostics.has(reason)) << text << "\n" << format_text(parsed.diagnostics);
    for (const auto& item : parsed.diagnostics.items()) EXPECT_GT(item.position.line, 0) << text << item.message;
  }
}

TEST(ParseMistakes, AMissingFileIsSaid) {
  const auto parsed = parse_file("/no/such/prism.yaml", sample());
  EXPECT_TRUE(parsed.diagnostics.has("UNREADABLE_FILE"));
}

TEST(ParseMistakes, NonsenseNeverCrashes) {
  const std::string seed = R"(backends: {m: {type: kafka}}
namespaces:
  - {name: a, client_api: pubsub, backend: {queue: m, topic_prefix: v}, patterns: [{type: outbox, config: {a: 1}}, claim-check, pub-sub],
     claim_check: {x: [1]}, cleanup: {on: 1}, publisher: {}, database: postgres, pub_sub: {consumer_groups: [a]}, state: m}
)";
  const std::string letters = "[]{}:,-?&*!|'\"# \nabnull";
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string text = seed;
    for (int edits = 1 + static_cast<int>(random() % 6); edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = letters[random() % letters.size()];
          break;
        case 1:
          text.erase(at, 1 + random() % 8);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 12));
          break;
      }
      if (text.empty()) text = "x";
    }
    parse(text);
  }
}

}  // namespace
}  // namespace prism
