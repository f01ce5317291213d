#include "namespaces/composition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "namespaces/parse.h"
#include "namespaces/syntax.h"

namespace prism {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

const Catalogue& catalogue() {
  static const Catalogue all(components());
  return all;
}

ParsedFile parse(const std::string& text) {
  config::LoadOptions options;
  options.file_name = "p.yaml";
  return parse_text(text, components(), options);
}

// What is wrong with the first namespace, but for patterns that are not built.
std::vector<config::Diagnostic> found(const std::string& body) {
  std::vector<config::Diagnostic> out;
  for (const auto& item : parse("namespaces: [{name: a, " + body + "}]").diagnostics.items()) {
    if (item.reason != "PATTERN_NOT_AVAILABLE" && item.severity == config::Severity::error) out.push_back(item);
  }
  return out;
}

std::vector<std::string> reasons(const std::string& body) {
  std::vector<std::string> out;
  for (const auto& item : found(body)) out.push_back(item.reason);
  return out;
}

TEST(Catalogue, HasEveryPatternThatAFileMayName) {
  std::set<std::string_view> names, in_files;
  for (const auto& info : catalogue().patterns()) {
    names.insert(info.name);
    EXPECT_EQ(info.version, "1.0.0");
    EXPECT_FALSE(info.summary.empty() || info.summary.ends_with('.')) << info.name;
    EXPECT_FALSE(info.gives.empty()) << info.name;
    for (const auto& conflict : info.conflicts) EXPECT_NE(catalogue().find(conflict.pattern), nullptr);
    for (const auto after : info.before) {
      ASSERT_NE(catalogue().find(after), nullptr) << after;
      EXPECT_LT(info.rank, catalogue().find(after)->rank) << info.name << " before " << after;
    }
  }
  for (const auto& syntax : pattern_syntax()) in_files.insert(syntax.name);
  EXPECT_EQ(names, in_files);
  EXPECT_EQ(catalogue().find("claim-chekc"), nullptr);
}

// Accepted pairs; those of the RFCs' matrices and examples are marked with where they stand. Every other pair is
// refused.
const std::set<std::pair<std::string, std::string>> kTogether = {
    {"claim-check", "pub-sub"},                  // 009 Matrix, Comp 1
    {"claim-check", "outbox"},                   // 009 Matrix, Comp 2
    {"change-data-capture", "claim-check"},      // 009 Matrix
    {"claim-check", "tiered-storage"},           // 009 Matrix
    {"change-data-capture", "outbox"},           // 009 Matrix
    {"tiered-storage", "write-ahead-log"},       // 009 Matrix, Comp 3
    {"change-data-capture", "write-ahead-log"},  // 009 Matrix
    {"change-data-capture", "cqrs"},             // 009 Matrix, Comp 4
    {"cqrs", "event-sourcing"},                  // 009 Matrix
    {"cache", "change-data-capture"},            // 014 CDC + Cache
    {"outbox", "tiered-storage"},                // 014 Migration Phase 3
    {"change-data-capture", "tiered-storage"},   // 014 Migration Phase 3
    {"outbox", "pub-sub"},
    {"pub-sub", "write-ahead-log"},
    {"pub-sub", "tiered-storage"},
    {"change-data-capture", "pub-sub"},
    {"claim-check", "write-ahead-log"},
    {"cache", "write-ahead-log"},
    {"cache", "tiered-storage"},
    {"change-data-capture", "event-sourcing"},
};

// proves
TEST(Compatibility, EveryPairInEitherOrder) {
  for (const auto& a : catalogue().patterns()) {
    for (const auto& b : catalogue().patterns()) {
      if (a.name == b.name) continue;
      const bool together =
          kTogether.contains({std::string(std::min(a.name, b.name)), std::string(std::max(a.name, b.name))});
      const std::string chain = std::string(a.name) + ", " + std::string(b.name);
      EXPECT_EQ(!why_incompatible(a, b).has_value(), together) << chain;
      EXPECT_EQ(why_incompatible(a, b), why_incompatible(b, a)) << chain;
      EXPECT_FALSE(must_precede(a, b) && must_precede(b, a)) << chain;

      // The same in a file, each complaint once: the matrix' or the order's.
      const auto problems = found("backend: kafka, patterns: [" + chain + "]");
      bool pair_refused = false;
      for (const auto& problem : problems) {
        if (problem.reason != "INCOMPATIBLE_PATTERN") continue;
        pair_refused = true;
        // pub-sub is no step of the chain and has no place in it.
        const auto& second = a.name == "pub-sub" ? a : b;
        EXPECT_THAT(problem.details, Contains(Pair("pattern", std::string(second.name)))) << chain;
      }
      EXPECT_EQ(pair_refused, !together) << chain;
    }
  }
}

// proves, X-13 (R-37: both patterns in the details)
TEST(Compatibility, AConflictNamesBothAndSaysWhy) {
  const auto problems = found("patterns: [outbox, event-sourcing], database: postgres");
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_EQ(problems[0].reason, "INCOMPATIBLE_PATTERN");
  EXPECT_EQ(problems[0].message, "outbox and event-sourcing would each be the first durable place of a write");
  EXPECT_THAT(problems[0].details, ElementsAre(Pair("pattern", "event-sourcing"), Pair("conflicts_with", "outbox")));
  EXPECT_EQ(problems[0].position.to_string(), "p.yaml:1:43");
  EXPECT_FALSE(problems[0].hint.empty());
  EXPECT_THAT(found("patterns: [wal, event-sourcing]")[0].message,
              "write-ahead-log and event-sourcing would each be the first durable place of a write");
}

// proves: F-06
TEST(Compatibility, ADisabledPatternConflictsWithNothing) {
  EXPECT_THAT(reasons("backend: kafka, patterns: [outbox, {type: event-sourcing, enabled: false}]"), ElementsAre());
  EXPECT_THAT(reasons("backend: kafka, patterns: [{type: tiered-storage, enabled: false}, outbox]"), ElementsAre());
}

// Every chain that an example of the RFCs prints; the only complaint is what is not built.
// proves, L-15, L-16, L-17
TEST(Compatibility, EveryChainOfTheRfcsIsAccepted) {
  for (const std::string body : {
           "pattern: tiered-storage, tiers: {hot: {backend: redis}, warm: {backend: postgres}, cold: {backend: s3}}, "
           "reference_store: {backend: postgres}",
           "pattern: write-ahead-log, backend: postgres, wal: {backend: kafka, consumers: [{name: w, type: "
           "database_writer, backend: postgres}]}",
           "pattern: claim-check, backend: kafka",
           "pattern: event-sourcing, event_store: {backend: kafka}, materialized_views: [{name: v, backend: postgres}]",
           "pattern: change-data-capture, source: {backend: postgres}, sink: {backend: kafka}, consumers: [{name: c, "
           "backend: elasticsearch}]",
           "pattern: cqrs, write_model: {backend: postgres}, read_models: [{name: r, backend: elasticsearch}], "
           "synchronization: {backend: kafka}",
           "pattern: outbox, database: {backend: postgres}, outbox: {publisher: {destination: {backend: kafka}}}",
           "patterns: [claim-check, pub-sub], backend: kafka",
           "patterns: [outbox, claim-check], database: {backend: postgres}, publisher: {destination: {backend: kafka}}",
           "patterns: [write-ahead-log, tiered-storage], wal: {backend: kafka}, tiers: {cold: {backend: s3}}",
           "patterns: [cqrs, cdc], write_model: {backend: postgres}, cdc: {sink: {backend: kafka}}",
           "client_api: reader, patterns: [{type: cache, backend: redis}, {type: cdc, source: {backend: postgres}}], "
           "backend: {type: postgres, database: users_db}",
           "client_api: pubsub, patterns: [claim-check, outbox], backend: {queue: kafka}",
           "patterns: [outbox, claim-check, tiered-storage, cdc], backend: kafka",
           "client_api: queue, patterns: [claim-check], backend: kafka",
           "client_api: queue, patterns: [wal, tiered-storage], wal: {backend: kafka}",
           "client_api: queue, pattern: wal, wal: {backend: kafka}, backend: postgres",
           "client_api: queue, pattern: outbox, backend: kafka",
           "client_api: queue, pattern: tiered-storage, tiers: {hot: {backend: redis}, cold: {backend: s3}}",
           "client_api: queue, backend: kafka",
           "client_api: reader, pattern: cache, backend: postgres",
           "client_api: transact, pattern: outbox, backend: kafka",
           "client_api: transact, pattern: event-sourcing, event_store: {backend: kafka}",
           "patterns: [event-sourcing, cqrs], event_store: {backend: kafka}, write_model: {backend: postgres}",
       }) {
    EXPECT_THAT(reasons(body), ElementsAre()) << body;
  }
}

// proves: L-15, L-18
TEST(Composition, APatternThatDoesNotWorkUnderTheApiIsRefused) {
  const auto problems = found("client_api: reader, pattern: outbox, backend: {type: postgres}");
  ASSERT_FALSE(problems.empty());
  EXPECT_EQ(problems[0].reason, "INCOMPATIBLE_PATTERN");
  EXPECT_EQ(problems[0].message, "the pattern outbox does not work under client_api reader");
  EXPECT_EQ(problems[0].hint, "use client_api pubsub, queue or transact, or remove the pattern");
  EXPECT_THAT(problems[0].details, ElementsAre(Pair("pattern", "outbox"), Pair("api", "reader")));
  for (const auto& info : catalogue().patterns()) {
    if (info.name == "pub-sub") continue;
    for (const std::string api : {"pubsub", "queue", "transact", "reader", "keyvalue", "cache", "events", "views"}) {
      const auto all = reasons("client_api: " + api + ", pattern: " + std::string(info.name));
      EXPECT_EQ(std::ranges::count(all, "INCOMPATIBLE_PATTERN"), supports(info, api) ? 0 : 1)
          << info.name << " " << api;
    }
  }
}

// proves: L-16
TEST(Composition, AnOrderThatHasNoMeaningIsRefused) {
  const auto problems = found("patterns: [tiered-storage, cdc, outbox], backend: kafka");
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_EQ(problems[0].reason, "INCOMPATIBLE_PATTERN_ORDER");
  EXPECT_THAT(problems[0].details, ElementsAre(Pair("first", "tiered-storage"), Pair("second", "outbox"),
                                               Pair("fix", "put outbox before tiered-storage")));
  EXPECT_EQ(problems[0].hint, "put outbox before tiered-storage");

  const std::set<std::pair<std::string, std::string>> only_so = {{"write-ahead-log", "tiered-storage"},
                                                                 {"outbox", "tiered-storage"},
                                                                 {"claim-check", "tiered-storage"},
                                                                 {"event-sourcing", "cqrs"}};
  for (const auto& a : catalogue().patterns()) {
    for (const auto& b : catalogue().patterns()) {
      if (a.name == b.name || why_incompatible(a, b)) continue;
      const std::string chain = std::string(a.name) + ", " + std::string(b.name);
      const auto all = reasons("patterns: [" + chain + "], backend: kafka");
      const bool reversed = only_so.contains({std::string(b.name), std::string(a.name)});
      EXPECT_EQ(std::ranges::count(all, "INCOMPATIBLE_PATTERN_ORDER"), reversed ? 1 : 0) << chain;
    }
  }
}

// proves: X-24, L-11
TEST(Composition, TheOrderOfTheFileBecomesTheCanonicalOne) {
  const auto spec = [](const std::string& body) {
    const auto parsed = parse("namespaces: [{name: a, backend: kafka, " + body + "}]");
    return parsed.file.namespaces.at(0);
  };
  const auto as_is = compose(spec("patterns: [claim-check, outbox]"), catalogue());
  EXPECT_THAT(as_is.chain, ElementsAre("claim-check", "outbox"));
  EXPECT_EQ(as_is.reordered, "");
  const auto turned = compose(spec("patterns: [outbox, pub-sub, cdc, claim-check]"), catalogue());
  EXPECT_THAT(turned.chain, ElementsAre("claim-check", "outbox"));
  EXPECT_THAT(turned.beside, UnorderedElementsAre("pub-sub", "change-data-capture"));
  EXPECT_THAT(turned.reordered, HasSubstr("outbox and claim-check"));
  EXPECT_THAT(compose(spec("patterns: []"), catalogue()).chain, ElementsAre());
}

// proves: L-17
TEST(Composition, ABackendThatCannotCarryThePatternsIsRefused) {
  const auto problems = found("pattern: claim-check, backend: kafka, claim_check: {storage: {backend: kafka}}");
  ASSERT_THAT(problems, SizeIs(1));
  EXPECT_EQ(problems[0].reason, "BACKEND_INCOMPATIBLE_WITH_PATTERNS");
  EXPECT_EQ(problems[0].message, "kafka cannot be storage.backend of claim-check, which needs an object store");
  EXPECT_EQ(problems[0].hint, "use filesystem or s3");
  EXPECT_EQ(problems[0].path, "namespaces[0].claim_check.storage.backend");
  EXPECT_THAT(problems[0].details, ElementsAre(Pair("backend", "kafka"), Pair("type", "kafka"),
                                               Pair("pattern", "claim-check"), Pair("needs", "object-store")));
  const std::vector<std::string> bodies = {
      "backend: s3",
      "backend: postgres",
      "pattern: claim-check, backend: s3",
      "patterns: [claim-check, pub-sub], backend: s3",
      "patterns: [outbox], backend: kafka, database: kafka",
      "patterns: [{type: claim-check, storage: postgres}], backend: kafka",
      "patterns: [{type: outbox, publisher: {destination: {backend: s3}}}]",
      "client_api: reader, backend: kafka",
      "pattern: wal, backend: postgres, wal: {backend: postgres}",
      "pattern: cdc, source: {backend: kafka}",
      "pattern: tiered-storage, tiers: {hot: {backend: redis}, cold: {backend: kafka}}",
  };
  for (const auto& body : bodies) {
    EXPECT_THAT(reasons(body), ElementsAre("BACKEND_INCOMPATIBLE_WITH_PATTERNS")) << body;
  }
  // Under the name of an entry its type counts.
  const auto parsed =
      parse("backends: {main: {type: filesystem, path: /tmp/x}}\nnamespaces: [{name: a, backend: main}]");
  ASSERT_TRUE(parsed.diagnostics.has("BACKEND_INCOMPATIBLE_WITH_PATTERNS"));
  EXPECT_THAT(parsed.diagnostics.items()[0].message, HasSubstr("main (filesystem)"));
}

TEST(Composition, BackendsThatAreMissingOrUnknownAreSaid) {
  EXPECT_THAT(reasons("pattern: outbox"), ElementsAre("BACKEND_MISSING"));
  EXPECT_THAT(reasons("backend: multi"), ElementsAre("BACKEND_MISSING"));
  EXPECT_THAT(reasons("pattern: outbox, backend: multi, publisher: {destination: {backend: kafka}}"), ElementsAre());
  EXPECT_THAT(reasons("backend: kafka, pattern: outbox, database: postgrse"), ElementsAre("UNKNOWN_BACKEND"));
  EXPECT_THAT(reasons("backend: kafak"), ElementsAre("UNKNOWN_BACKEND"));
  EXPECT_THAT(reasons("backend: kafka, state: filesystem"), ElementsAre("BACKEND_LACKS_CAPABILITY"));
}

}  // namespace
}  // namespace prism
