#include "backends/sqlite/survival.h"

#include <string>

namespace prism::sqlite {
namespace {

constexpr std::uint32_t kQuorum = 3;  // copies from which one can be missing

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
