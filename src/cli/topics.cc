#include "cli/topics.h"

#include <array>

namespace prism::cli {
namespace {

constexpr std::array kTopics = {
    Topic{
        "size", "Sizes",
        R"(A number with a unit: `512B`, `500kB`, `1MB`, `10GB`, `1TB` are powers of 1000, `8MiB`, `5GiB` powers of 1024. A bare number is
bytes. Case does not matter; one space or `_` may stand before the unit. `1.5MB` is accepted because it is a whole number of bytes.
)"},
    Topic{
        "duration", "Durations",
        R"(A number with a unit: `100ms`, `60s`, `15m`, `24h`, `7d`, `2w`, or the long form: `30 days`, `1_day`. Several parts add up:
`1h30m`. A bare number is seconds: `604800` is seven days. Where an option may have no end, `infinite` or `null` says so.
)"},
    Topic{
        "rate", "Rates",
        R"(A number of things per time: `10k msgs/s`, `500/min`, `1.5M events per day`. `k`, `M` and `G` are powers of 1000; what is counted may be
called anything. A bare number is per second.
)"},
    Topic{
        "secret", "Secrets and variables",
        R"(In any value, `${env:NAME}` is replaced by the variable NAME of the environment, and `${file:PATH}` by the content of a file, without
its last line break; a relative path begins at the folder of the configuration file. `$${` is a literal `${`. Messages about a value
show `${env:NAME}`, not what was put in, and passwords, keys and tokens are shown nowhere; names of namespaces, topics and tables are no
secrets, wherever they come from. A secret that stands in the file itself is accepted with a warning.

```yaml
password: ${env:DATABASE_PASSWORD}
token: ${file:/run/secrets/token}
```
)"},
    Topic{
        "yaml", "YAML",
        R"(One UTF-8 document of at most 4 MiB. Anchors, aliases and merge keys (`<<: *common`) work; what is merged in does not override what stands
there. A key that stands twice in a map is an error, as is a key that nothing knows. Names of values (`on_consume`) may be written in any
case, with `-` or `_`. Only `true` and `false` are booleans.
)"},
};

}  // namespace

std::span<const Topic> topics() { return kTopics; }

}  // namespace prism::cli
