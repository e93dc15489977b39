#include "text/metaspace.h"

#include "text/unicode.h"

namespace signround {

Metaspace read_metaspace(const Json& json) {
  Metaspace m;
  m.replacement = json.string("replacement");
  size_t end = 0;
  if (!m.replacement.empty()) next_code_point(m.replacement, end);
  check(end > 0 && end == m.replacement.size(), ErrorKind::bad_input, "Metaspace: replacement ", quote(m.replacement),
        " is not one character");
  m.split = json.boolean("split", true);
  const std::string scheme = json.string("prepend_scheme", "always");
  if (scheme == "first") m.prepend = Metaspace::Prepend::first;
  else if (scheme == "never") m.prepend = Metaspace::Prepend::never;
  else check(scheme == "always", ErrorKind::bad_input, "Metaspace: unknown prepend_scheme ", quote(scheme));
  // Files older than prepend_scheme say it so.
  check(json.boolean("add_prefix_space", true) || m.prepend == Metaspace::Prepend::never, ErrorKind::bad_input,
        "Metaspace: add_prefix_space is false, but prepend_scheme is ", quote(scheme));
  return m;
}

}  // namespace signround
