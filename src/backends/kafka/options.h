// Options of a connection to Kafka, as an entry under `backends:` gives them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/client/options.h"
#include "config/schema.h"
#include "config/secret.h"

namespace prism::kafka {

enum class Mechanism : std::uint8_t { plain, scram_sha_256, scram_sha_512 };
enum class Compression : std::uint8_t { none, gzip, snappy, lz4, zstd };

struct Options {
  std::vector<std::string> brokers;  // "host:port"; to begin with, the others are learned from them
  std::optional<std::string> login_user;
  std::optional<config::Secret> login_password;
  Mechanism mechanism = Mechanism::plain;
  std::optional<client::TlsOptions> tls;
  client::TimeoutOptions timeouts;  // operation: also how long a record may wait for its acknowledgement

  std::string prefix;             // before the names of topics and groups
  std::uint32_t partitions = 0;   // of a new topic that asks for none in particular; 0: the broker's default
  std::uint32_t replication = 0;  // copies of a new topic's records; 0: the broker's default

  Compression compression = Compression::none;
  std::chrono::milliseconds linger{0};    // how long a record waits for company
  std::uint64_t batch_bytes = 512 << 10;  // of records sent together
  std::uint64_t buffer_bytes = 64 << 20;  // of records that wait to be sent

  // Whoever consumes in a group and is not heard of for so long loses its partitions; the brokers have bounds for it
  // (6 s to 30 min as they are installed).
  std::chrono::milliseconds session_timeout{10'000};
  std::chrono::milliseconds heartbeat{3'000};
  // How long a partition that is to move to another consumer waits for its unsettled deliveries.
  std::chrono::milliseconds drain{1'000};
  // False: a consumer that has lost its session does not come back. For tests of what others then do.
  bool rejoins = true;
};

const config::Schema<Options>& options_schema();

}  // namespace prism::kafka
