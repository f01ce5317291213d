#include "backends/sqlite/survival.h"

#include <string>

namespace prism::sqlite {
namespace {

constexpr std::uint32_t kQuorum = 3;  // copies from which one can be missing

// acks=all: every in-sync replica has the record in its memory. Kafka writes to disk later, in its own time.
Survival kafka(const Deployment& deployment) {
  Survival out{.process_kill = Survives::yes,
               .power_loss = Survives::depends,
               .disk_loss = Survives::depends,
               .site_power_loss = Survives::no,
               .why = {}};
  const std::string acks = "acks=all is no fsync: a record is acknowledged when all in-sync replicas have it in memory";
  if (!deployment.replication) {
    out.why = acks + "; what is lost with one broker depends on the topic's replication, which the file does not give";
  } else if (*deployment.replication == 1) {
    out.power_loss = Survives::no;
    out.disk_loss = Survives::no;
    out.why = acks + ", and with replication 1 there is one";
  } else {
    out.why = acks + "; with replication " + std::to_string(*deployment.replication) +
              " another broker has it too, as long as the topic's min.insync.replicas is 2 or more";
  }
  return out;
}

Survival nats(const Deployment& deployment) {
  Survival out{.process_kill = Survives::yes,
               .power_loss = Survives::depends,
               .disk_loss = Survives::depends,
               .site_power_loss = Survives::depends,
               .why = {}};
  const std::string sync =
      "file storage is synced every sync_interval (2 minutes by default), or at once with "
      "`sync_interval: always`";
  if (!deployment.replication) {
    out.why = sync + "; the file does not say how many replicas the stream has";
  } else if (*deployment.replication < kQuorum) {
    out.disk_loss = Survives::no;
    out.why = sync + "; with replication " + std::to_string(*deployment.replication) + " no server may be missing";
  } else {
    out.power_loss = Survives::yes;
    out.disk_loss = Survives::yes;
    out.why = "a majority of " + std::to_string(*deployment.replication) + " servers has it before the answer; " + sync;
  }
  return out;
}

}  // namespace

Survival survival(std::string_view engine, const Deployment& deployment) {
  if (engine == "kafka") return kafka(deployment);
  if (engine == "nats") return nats(deployment);
  if (engine == "redis") {
    return {.process_kill = Survives::depends,
            .power_loss = Survives::depends,
            .disk_loss = Survives::no,
            .site_power_loss = Survives::depends,
            .why =
                "as durable as its appendfsync: `always` survives a loss of power, `everysec` loses up to a second, "
                "without an append-only file all since the last snapshot is lost; replicas follow later"};
  }
  return synced_to_one_disk();
}

}  // namespace prism::sqlite
