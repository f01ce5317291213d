#include "telemetry/runtime_metrics.h"

#include "runtime/byte_budget.h"

namespace prism {

RuntimeMetrics::RuntimeMetrics(Metrics& metrics, Runtime& runtime) {
  const auto lag = metrics.histogram("prism_loop_lag_seconds",
                                     "How long an event loop took to turn to what it was woken for.", {"loop"});
  for (const auto& loop : runtime.loops()) callbacks_.push_back(lag.show({loop->name()}, loop->lag()));

  const auto queued =
      metrics.gauge("prism_offload_queued", "Blocking calls that wait for a thread of a pool.", {"pool"});
  const auto busy = metrics.gauge("prism_offload_busy_threads", "Threads of a pool at work.", {"pool"});
  const auto threads = metrics.gauge("prism_offload_threads", "Threads of a pool.", {"pool"});
  const auto waits = metrics.histogram("prism_offload_wait_seconds",
                                       "How long blocking calls waited for a thread of a pool.", {"pool"});
  for (OffloadPool* pool : {&runtime.files(), &runtime.cpu()}) {
    const LabelValues labels{pool->name()};
    callbacks_.push_back(queued.callback(labels, [pool] { return static_cast<double>(pool->queued()); }));
    callbacks_.push_back(busy.callback(labels, [pool] { return static_cast<double>(pool->busy()); }));
    callbacks_.push_back(threads.callback(labels, [pool] { return static_cast<double>(pool->threads()); }));
    callbacks_.push_back(waits.show(labels, pool->waits()));
  }

  callbacks_.push_back(
      metrics
          .counter("prism_stalls_total",
                   "Stretches of work of more than 50 ms on a thread that must not block (loops, gRPC's threads).")
          .callback({}, [&runtime] { return static_cast<double>(runtime.stalls().stalls()); }));

  const auto budget = [&](const char* name, const char* help, auto read) {
    callbacks_.push_back(metrics.gauge(name, help).callback({}, [held = runtime.budget(), read] {
      return static_cast<double>(read(*held));
    }));
  };
  budget("prism_payload_budget_bytes", "How many bytes of payloads in flight all streams together may hold.",
         [](const ByteBudget& b) { return b.limit(); });
  budget("prism_payload_budget_used_bytes", "Bytes of payloads in flight.",
         [](const ByteBudget& b) { return b.used(); });
  budget("prism_payload_budget_waiting", "Streams that wait for room for their payloads.",
         [](const ByteBudget& b) { return b.waiting(); });
}

}  // namespace prism
