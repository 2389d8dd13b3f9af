define(['jquery'], function ($) {
  'use strict';

  // Where the service answers; the package is made for one address.
  var BASE = '__BASE__';
  var VERSION = '__VERSION__';
  // Rules of data that saved bots keep for ever.
  var DATA_VERSION = '1';
  // Drawn at once; the rest of a step's fields stand below "more".
  var FIRST = ['recipients', 'phones', 'chat_ids', 'line', 'messenger', 'template', 'params', 'text', 'files',
    'fallback_template', 'in_group'];
  var PLACES = [
    ['{{contact.name}}', 'field_contact_name'], ['{{contact.phone}}', 'field_contact_phone'],
    ['{{lead.id}}', 'field_lead_id'], ['{{lead.price}}', 'field_lead_price'],
    ['{{lead.responsible.name}}', 'field_responsible'], ['{{message_text}}', 'field_message_text'],
    ['{{current_date}}', 'field_current_date']
  ];

  return function () {
    var self = this;
    var known = null;
    var forms = {};
    var clicks = 0;

    function say(key) {
      return self.i18n('interface')[key] || key;
    }

    function language() {
      return typeof APP !== 'undefined' && APP.lang_id ? APP.lang_id : '';
    }

    function node(tag, name, text) {
      var $node = $('<' + tag + '>');
      if (name) {
        $node.addClass('mostik-' + name);
      }
      return text === undefined ? $node : $node.text(text);
    }

    function root(name) {
      return node('div', name).addClass('mostik-root');
    }

    function addStyle() {
      var place = self.params.path + '/style.css?v=' + VERSION;
      if (!$('link[href="' + place + '"]').length) {
        $('head').append($('<link>', { rel: 'stylesheet', type: 'text/css', href: place }));
      }
    }

    // One request to the service; the result is told in words when it fails.
    function call(method, path, body) {
      var wish = { url: BASE + '/widget/' + path, method: method, dataType: 'json' };
      var answer = $.Deferred();
      if (body) {
        wish.contentType = 'application/json';
        wish.data = JSON.stringify($.extend({ lang: language() }, body));
      }
      self.$authorizedAjax(wish).then(answer.resolve, function (request) {
        var reason = null;
        try {
          reason = JSON.parse(request.responseText);
        } catch (error) {
          reason = null;
        }
        answer.reject(reason && reason.detail ? say('refused') + ' ' + reason.detail : say('unreachable'));
      });
      return answer.promise();
    }

    function options() {
      if (!known) {
        known = call('GET', 'options?lang=' + encodeURIComponent(language())).fail(function () {
          known = null;
        });
      }
      return known;
    }

    // Shows what could not be loaded, with a way to try again.
    function trouble($place, words, again) {
      var $button = node('button', 'button', say('again')).attr('type', 'button').on('click', again);
      $place.empty().append(node('p', 'bad', words).attr('role', 'alert'), $button);
    }

    function readList(text) {
      var list = [];
      try {
        list = JSON.parse(text || '[]');
      } catch (error) {
        list = text ? [text] : [];
      }
      return $.isArray(list) ? list : [String(list)];
    }

    function templateOf(data, label) {
      return $.grep(data.templates, function (template) {
        return template.label === label;
      })[0];
    }

    function choices(data, property, values) {
      var list = $.map(property.choices, function (choice) {
        return { value: choice.value, name: choice.name };
      });
      if (property.key === 'line') {
        list = [{ value: '', name: say('auto') }].concat($.map(data.lines, function (line) {
          return { value: line.id, name: line.name };
        }));
      }
      if (property.key === 'template' || property.key === 'fallback_template') {
        list = [{ value: '', name: say('none') }];
        $.each(data.templates, function (at, template) {
          var fits = !values.line || values.line === template.line;
          var once = !$.grep(list, function (other) { return other.value === template.label; }).length;
          if (fits && once) {
            list.push({
              value: template.label,
              name: template.label + (template.sendable ? '' : ' (' + say('not_approved') + ': ' + template.status + ')')
            });
          }
        });
      }
      if (property.kind === 'user') {
        list = [{ value: '', name: say('none') }];
        $.each(APP.constant('managers') || {}, function (id, manager) {
          list.push({ value: String(id), name: manager.title });
        });
      }
      return list;
    }

    // What people look for first stands first; the rest as in the catalogue.
    function inOrder(properties) {
      function place(property) {
        var at = $.inArray(property.key, FIRST);
        return at < 0 ? FIRST.length : at;
      }
      return properties.slice().sort(function (one, other) {
        return place(one) - place(other);
      });
    }

    function isSelect(property) {
      return property.kind === 'select' || property.kind === 'user' ||
        property.key === 'template' || property.key === 'fallback_template';
    }

    // A form over the inputs that amoCRM saves: what is chosen here is written there.
    // The pipeline, other than a bot, fills nothing in: there no fields of the card are offered.
    function Form($place, code, input, data, ofPipeline) {
      var form = this;
      var action = $.grep(data.actions, function (known) { return known.code === code; })[0];
      var $fields = node('div', 'fields');
      var $more = node('details', 'more').append(node('summary', '', say('more')));
      var $said = node('div', 'said').attr({ role: 'status', 'aria-live': 'polite', tabindex: -1 });
      var asking = null;
      form.problems = [];
      form.said = $said;

      function get(key) {
        return String(input(key).val() || '');
      }

      function set(key, value) {
        input(key).val(value).trigger('change');
      }

      form.values = function () {
        var values = { v: DATA_VERSION, action: code };
        $.each(action.properties, function (at, property) {
          var value = get(property.key);
          var list = property.key === 'params' || property.key === 'files' ? readList(value) : null;
          if (list ? list.length : value) {
            values[property.key] = list || value;
          }
        });
        if (readList(get('param_defaults')).join('')) {
          values.param_defaults = readList(get('param_defaults'));
        }
        return values;
      };

      function showProblems(problems) {
        form.problems = problems;
        $said.empty();
        $place.find('.mostik-wrong').removeClass('mostik-wrong');
        if (!problems.length) {
          $said.append(node('p', 'good', say('checked')));
          return;
        }
        $said.append(node('p', 'bad', say('problems')));
        $.each(problems, function (at, problem) {
          $said.append(node('p', 'problem', problem.text).attr('data-field', problem.field));
          $place.find('[data-key="' + problem.field + '"]').addClass('mostik-wrong');
        });
      }

      // Asks the service what would fail; called when nothing has changed for a moment.
      function check() {
        var asked = call('POST', 'check', { data: form.values(), pipeline: ofPipeline });
        asking = asked;
        asked.then(function (answer) {
          if (asking === asked) {
            showProblems(answer.problems);
          }
        }, function (words) {
          if (asking === asked) {
            $said.empty().append(node('p', 'bad', words));
          }
        });
      }

      form.changed = function () {
        clearTimeout(form.timer);
        form.timer = setTimeout(check, 300);
        showFor();
      };

      function control(property) {
        var id = 'mostik-' + code + '-' + property.key + '-' + (clicks += 1);
        var value = get(property.key);
        var $control = null;
        if (isSelect(property)) {
          $control = node('select', 'control');
          form.fill(property, $control, value);
        } else if (property.kind === 'text') {
          $control = node('textarea', 'control').attr('rows', 4).val(value);
        } else if (property.kind === 'bool') {
          $control = $('<input>', { type: 'checkbox', 'class': 'mostik-check' });
          $control.prop('checked', (value || property.default) !== 'N');
        } else {
          $control = $('<input>', { type: property.kind === 'int' ? 'number' : 'text', 'class': 'mostik-control' });
          $control.val(property.key === 'files' ? readList(value).join(' ') : value || property.default);
        }
        $control.attr({ id: id, 'data-name': property.key });
        $control.on('input change', function () {
          var written = property.kind === 'bool' ? ($control.prop('checked') ? 'Y' : 'N') : String($control.val());
          if (property.key === 'files') {
            written = JSON.stringify($.grep(written.split(/\s+/), function (part) { return part; }));
          }
          set(property.key, written);
          if (property.key === 'line') {
            form.refill();
          }
          if (property.key === 'template') {
            drawParams();
          }
          form.changed();
        });
        return $control;
      }

      form.fill = function (property, $control, value) {
        var list = choices(data, property, { line: get('line') });
        var has = $.grep(list, function (choice) { return choice.value === value; }).length;
        $control.empty();
        if (value && !has) {
          list.push({ value: value, name: value });
        }
        $.each(list, function (at, choice) {
          $control.append($('<option>', { value: choice.value }).text(choice.name));
        });
        $control.val(value || property.default || '');
      };

      form.refill = function () {
        $.each(action.properties, function (at, property) {
          if (property.key === 'template' || property.key === 'fallback_template') {
            form.fill(property, $place.find('[data-name="' + property.key + '"]'), get(property.key));
          }
        });
      };

      function insert($into) {
        if (ofPipeline) {
          return $();
        }
        var $list = node('select', 'insert').attr('aria-label', say('insert'));
        $list.append($('<option>', { value: '' }).text(say('insert')));
        $.each(PLACES, function (at, place) {
          $list.append($('<option>', { value: place[0] }).text(say(place[1])));
        });
        $list.on('change', function () {
          var field = $into.get(0);
          var text = String($into.val());
          var start = field.selectionStart === undefined ? text.length : field.selectionStart;
          if ($list.val()) {
            $into.val(text.slice(0, start) + $list.val() + text.slice(start)).trigger('input');
            $list.val('');
          }
        });
        return $list;
      }

      // One field for each value the chosen template takes, each with what stands there when it comes empty.
      function drawParams() {
        var $params = $place.find('[data-key="params"] .mostik-params').empty();
        var template = templateOf(data, get('template')) || templateOf(data, get('fallback_template'));
        var given = readList(get('params'));
        var defaults = readList(get('param_defaults'));
        var $values = [];
        var $empty = [];
        var $preview = node('p', 'preview');
        var wanted = template ? template.params : [];

        function keep() {
          set('params', JSON.stringify($.map(wanted, function (name, at) {
            var value = String($values[at].val());
            return name ? name + '=' + value : value;
          })));
          set('param_defaults', JSON.stringify($.map($empty, function ($one) { return String($one.val()); })));
        }

        function preview() {
          var body = template ? template.body : '';
          var count = 0;
          $preview.empty();
          if (body) {
            body = body.replace(/\{\{\s*\w+\s*\}\}/g, function (place) {
              var value = $values[count] ? String($values[count].val()) : '';
              count += 1;
              return value || place;
            });
            $preview.append(node('span', 'label', say('preview')), node('span', 'bubble', body));
          }
        }

        // A list with holes would be taken for a shorter one.
        wanted = $.map(wanted, function (name) { return name === null ? '' : name; });
        $.each(wanted, function (at, name) {
          var value = given[at] || '';
          var label = say('parameter') + ' ' + (at + 1) + (name ? ' (' + name + ')' : '');
          var $value = $('<input>', { type: 'text', 'class': 'mostik-control', 'aria-label': label });
          var $default = $('<input>', { type: 'text', 'class': 'mostik-control mostik-default' });
          $value.val(name && value.indexOf(name + '=') === 0 ? value.slice(name.length + 1) : value);
          $value.attr('data-param', at + 1);
          $default.attr({ placeholder: say('if_empty'), 'aria-label': label + ', ' + say('if_empty') });
          $default.attr('data-param-default', at + 1).val(defaults[at] || '');
          $values.push($value);
          $empty.push($default);
          $value.add($default).on('input', function () {
            keep();
            preview();
            form.changed();
          });
          $params.append(node('div', 'param').append(node('span', 'label', label), $value, insert($value), $default));
        });
        $params.append($preview);
        $place.find('[data-key="params"]').toggle(wanted.length > 0);
        preview();
      }

      // Fields that mean nothing with the present choice are not shown.
      function showFor() {
        var given = get('recipients') === 'given';
        $place.find('[data-key="phones"], [data-key="chat_ids"]').toggle(given);
        $place.find('[data-key="text"]').toggle(!get('template'));
        $place.find('[data-key="caption"]').toggle(readList(get('files')).length > 0);
      }

      function row(property) {
        var $row = node('div', 'field').attr('data-key', property.key);
        var $control = null;
        if (property.key === 'params') {
          return $row.append(node('span', 'label', property.name), node('div', 'params'));
        }
        $control = control(property);
        $row.append(node('label', 'label', property.name).attr('for', $control.attr('id')), $control);
        if (property.kind === 'text' || property.key === 'phones' || property.key === 'chat_ids') {
          $row.append(insert($control));
        }
        if (property.hint) {
          $row.append(node('span', 'hint', property.hint));
        }
        return $row;
      }

      if (!get('recipients')) {
        set('recipients', 'main');
      }
      $.each(inOrder(action.properties), function (at, property) {
        if (!input(property.key).length) {
          return;
        }
        if (property.default && !get(property.key)) {
          set(property.key, property.default);
        }
        ($.inArray(property.key, FIRST) < 0 ? $more : $fields).append(row(property));
      });
      $place.empty().append($fields, $more, $said);
      drawParams();
      form.changed();
    }

    // Draws a form in `$place` as soon as the lists are there.
    function draw($place, code, input, ofPipeline) {
      $place.text(say('loading'));
      options().then(function (data) {
        if (ofPipeline) {
          input('key').val(data.key).trigger('change');
        }
        forms[code] = new Form($place, code, input, data, ofPipeline);
      }, function (words) {
        trouble($place, words, function () {
          draw($place, code, input, ofPipeline);
        });
      });
    }

    function overview($place) {
      $place.empty().text(say('loading'));
      options().then(function (data) {
        $place.empty().append(node('h3', '', say('lines')));
        if (!data.lines.length) {
          $place.append(node('p', 'bad', say('no_lines')));
        }
        $.each(data.lines, function (at, line) {
          var $line = node('div', 'line').append(node('strong', '', line.name));
          if (!line.channels.length) {
            $line.append(node('p', 'hint', say('no_channels')));
          }
          $.each(line.channels, function (place, channel) {
            var state = channel.title + ' ' + channel.name + ': ' + channel.state;
            $line.append(node('p', channel.works ? 'good' : 'bad', state));
          });
          $place.append($line);
        });
        $place.append(node('h3', '', say('templates')));
        if (!data.templates.length) {
          $place.append(node('p', 'hint', say('no_templates')));
        }
        $.each(data.templates, function (at, template) {
          $place.append(node('p', template.sendable ? '' : 'bad', template.label + ': ' + template.status));
        });
        $.each(data.trouble, function (at, words) {
          $place.append(node('p', 'bad', words));
        });
      }, function (words) {
        trouble($place, words, function () {
          overview($place);
        });
      });
    }

    function cardData() {
      var names = { leads: 'lead', contacts: 'contact', companies: 'company', customers: 'customer' };
      var card = APP.data && APP.data.current_card;
      var data = {};
      if (card && card.id && names[APP.getBaseEntity()]) {
        data[names[APP.getBaseEntity()]] = String(card.id);
      }
      return data;
    }

    // The form with which somebody writes first; `phones` are those of the card, the first one is chosen.
    function composer($place, phones, done) {
      var $to = node('select', 'control').attr('data-name', 'to');
      var $channel = node('select', 'control').attr('data-name', 'channel');
      var $text = node('textarea', 'control').attr({ rows: 3, 'data-name': 'text' });
      var $template = node('select', 'control').attr('data-name', 'template');
      var $params = node('div', 'params');
      var $send = node('button', 'button', say('send')).attr({ type: 'button', 'data-name': 'send' });
      var $said = node('div', 'said').attr({ role: 'status', 'aria-live': 'polite' });
      var request = null;

      function labelled(key, $control) {
        return node('label', 'field').append(node('span', 'label', say(key)), $control);
      }

      function values(data) {
        var chosen = String($channel.val() || '').split('|');
        var sent = $.extend({ v: DATA_VERSION, action: 'send_message' }, cardData());
        sent.recipients = 'given';
        sent.phones = String($to.val() || '');
        sent.line = chosen[0];
        sent.messenger = chosen[1] || 'auto';
        if ($template.val()) {
          sent.template = $template.val();
          sent.params = $.map(templateOf(data, $template.val()).params, function (name, at) {
            var value = String($params.find('[data-param="' + (at + 1) + '"]').val() || '');
            return name ? name + '=' + value : value;
          });
        } else {
          sent.text = String($text.val());
        }
        return sent;
      }

      function drawParams(data) {
        var template = templateOf(data, $template.val());
        $params.empty();
        $text.closest('.mostik-field').toggle(!template);
        if (template) {
          $params.append(node('p', 'preview').append(node('span', 'bubble', template.body)));
          for (var at = 1; at <= template.params.length; at += 1) {
            $params.append(node('label', 'field').append(node('span', 'label', say('parameter') + ' ' + at),
              $('<input>', { type: 'text', 'class': 'mostik-control' }).attr('data-param', at)));
          }
        }
      }

      function drawTemplates(data) {
        var line = String($channel.val() || '').split('|')[0];
        $template.empty().append($('<option>', { value: '' }).text(say('none')));
        $.each(data.templates, function (at, template) {
          if (template.sendable && template.line === line) {
            $template.append($('<option>', { value: template.label }).text(template.label));
          }
        });
        drawParams(data);
      }

      function fail(words) {
        $said.empty().append(node('p', 'bad', words).attr('role', 'alert'));
        $send.prop('disabled', false);
      }

      function send(data) {
        var sent = values(data);
        if (!sent.template && !$.trim(sent.text)) {
          fail(say('empty'));
          return;
        }
        // Kept while the outcome is not known, so that a second click sends nothing again.
        request = request || String(Date.now()) + '-' + Math.random().toString(36).slice(2, 12);
        $send.prop('disabled', true);
        call('POST', 'messages', { request: request, data: sent }).then(function () {
          request = null;
          $said.empty().append(node('p', 'good', say('sent')));
          $text.val('');
          $send.prop('disabled', false);
          done();
        }, fail);
      }

      $place.empty().text(say('loading'));
      options().then(function (data) {
        $.each(phones, function (at, phone) {
          $to.append($('<option>', { value: phone }).text(phone));
        });
        $.each(data.lines, function (at, line) {
          $.each(line.channels, function (place, channel) {
            $channel.append($('<option>', { value: line.id + '|' + channel.messenger })
              .text(channel.title + ' · ' + channel.name + ' · ' + line.name));
          });
        });
        $channel.on('change', function () { drawTemplates(data); });
        $template.on('change', function () { drawParams(data); });
        // Another message is another request, and what was said of the one before is over.
        $place.off('.mostik').on('input.mostik change.mostik', function () {
          request = null;
          $said.empty();
        });
        $send.on('click', function () { send(data); });
        $place.empty().append(labelled('to', $to), labelled('channel', $channel), labelled('template', $template),
          $params, labelled('text', $text).append(node('span', 'hint', say('free_text'))), $send, $said);
        drawTemplates(data);
      }, function (words) {
        trouble($place, words, function () {
          composer($place, phones, done);
        });
      });
    }

    function dialog($place, phones) {
      return call('POST', 'dialogs', { phones: phones }).then(function (answer) {
        $place.empty();
        if (!answer.messages.length) {
          $place.append(node('p', 'hint', say('no_messages')));
        }
        $.each(answer.messages, function (at, message) {
          var when = new Date(message.at).toLocaleString(language() || undefined);
          $place.append(node('div', message.inbound ? 'in' : 'out').append(
            node('p', 'bubble', message.text),
            node('p', 'hint', message.messenger + ' · ' + when + ' · ' + message.words).attr('data-state', message.state)
          ));
        });
      }, function (words) {
        $place.empty().append(node('p', 'bad', words));
      });
    }

    function panel($place) {
      self.get_current_card_contacts_data().then(function (contacts) {
        var phones = [];
        var $dialog = node('div', 'dialog');
        var $form = node('div', 'composer');
        $.each(contacts, function (at, contact) {
          $.merge(phones, contact.phones || []);
        });
        $place.empty();
        if (!phones.length) {
          $place.append(node('p', 'hint', say('no_phone')));
          return;
        }
        $place.append(node('h3', '', say('dialog')), $dialog, node('h3', '', say('write')), $form);
        dialog($dialog, phones);
        composer($form, phones, function () {
          dialog($dialog, phones);
        });
      });
    }

    function writeTo(phone) {
      var $box = node('div', 'box').attr({ role: 'dialog', 'aria-modal': 'true', 'aria-label': say('write') });
      var $form = node('div', 'composer');
      var $over = root('over').append($box);
      var $close = node('button', 'close', '×').attr({ type: 'button', 'aria-label': say('close') });
      function close() {
        $over.remove();
      }
      $close.on('click', close);
      $over.on('keydown', function (event) {
        if (event.key === 'Escape') {
          close();
        }
      });
      $box.append($close, node('h3', '', say('write')), $form);
      addStyle();
      $('body').append($over);
      $close.trigger('focus');
      composer($form, [phone], $.noop);
    }

    function flat(params) {
      var inner = params && params.params;
      // One of our own fields is called "params", too; every block has the field "action".
      var given = inner && inner.action !== undefined ? inner : params || {};
      var values = {};
      $.each(given, function (key, value) {
        values[key] = value && typeof value === 'object' && !$.isArray(value) ? value.value_manual || value.value || '' : value;
      });
      return values;
    }

    this.callbacks = {
      render: function () {
        if ($.inArray(self.system().area, ['lcard', 'ccard', 'comcard']) >= 0) {
          self.render_template({
            caption: { class_name: 'mostik-caption' },
            body: '',
            render: '<div class="mostik-root mostik-panel"></div>'
          });
        }
        return true;
      },

      init: function () {
        addStyle();
        if ($.inArray(self.system().area, ['lcard', 'ccard', 'comcard']) >= 0) {
          self.add_action('phone', function (clicked) {
            writeTo(clicked.value);
          });
          panel($('.mostik-panel'));
        }
        return true;
      },

      bind_actions: function () {
        return true;
      },

      settings: function ($modal) {
        var code = self.get_settings().widget_code;
        var $saved = $modal.find('#' + code + '_custom');
        var $agree = $('<input>', { type: 'checkbox', id: 'mostik-consent' });
        var $state = node('div', 'overview');
        addStyle();
        $agree.prop('checked', Boolean($saved.val()));
        $agree.on('change', function () {
          $saved.val($agree.prop('checked') ? JSON.stringify({ consent: true }) : '').trigger('change');
        });
        $modal.find('#' + code + '_custom_content').empty().append(root('settings').append(
          node('label', 'consent').attr('for', 'mostik-consent').append($agree, node('span', '', say('consent_text'))),
          $state
        ));
        if (self.get_install_status() === 'installed') {
          overview($state);
        }
      },

      onSave: function () {
        known = null;
        return true;
      },

      destroy: function () {
        $('.mostik-over').remove();
        forms = {};
      },

      advancedSettings: function () {
        var $page = root('page');
        addStyle();
        $('#list_page_holder').empty().append($page);
        overview($page);
      },

      dpSettings: function () {
        var code = self.get_settings().widget_code;
        var $form = $('.digital-pipeline__short-task_widget-style_' + code).parent().parent()
          .find('[data-action=send_widget_hook]');
        var $place = root('step');
        addStyle();
        $form.find('.mostik-step').remove();
        // What stands around one input and nothing else is its row.
        $form.find('input').each(function () {
          var $row = $(this).parent();
          ($row.find('input').length === 1 ? $row : $(this)).hide();
        });
        $form.append($place);
        $form.find('input[name=action]').val('send_message').trigger('change');
        draw($place, 'send_message', function (key) {
          return $form.find('input[name="' + key + '"]');
        }, true);
      },

      salesbotDesignerSettings: function ($body) {
        var $place = root('step');
        function input(key) {
          var $row = $body.find('[data-field-name="' + key + '"]');
          return $row.is('input, textarea') ? $row : $row.find('[name=value_manual]');
        }
        addStyle();
        $body.children().hide();
        $body.append($place);
        draw($place, String(input('action').val()), input, false);
        return {
          exits: [
            { code: 'success', title: self.i18n('salesbot').success },
            { code: 'fail', title: self.i18n('salesbot').fail }
          ]
        };
      },

      onSalesbotDesignerSave: function (handler, params) {
        var values = flat(params);
        var data = { v: DATA_VERSION, action: handler };
        // The designer knows no way to refuse; the words are shown, and said again on the card when the step runs.
        if (forms[handler] && forms[handler].problems.length) {
          forms[handler].said.trigger('focus');
        }
        $.each(values, function (key, value) {
          var list = key === 'params' || key === 'param_defaults' || key === 'files' ? readList(value) : null;
          if (key !== 'action' && (list ? list.join('') : value)) {
            data[key] = list || String(value);
          }
        });
        if (APP.getBaseEntity() === 'customers') {
          data.customer = '{{customer.id}}';
        } else {
          data.lead = '{{lead.id}}';
        }
        data.contact = '{{contact.id}}';
        return JSON.stringify([
          {
            question: [
              { handler: 'widget_request', params: { url: BASE + '/salesbot', data: data } },
              { handler: 'goto', params: { type: 'question', step: 1 } }
            ]
          },
          {
            question: [
              {
                handler: 'conditions',
                params: {
                  logic: 'and',
                  conditions: [{ term1: '{{json.status}}', term2: 'success', operation: '=' }],
                  result: [{ handler: 'exits', params: { value: 'success' } }]
                }
              },
              { handler: 'exits', params: { value: 'fail' } }
            ]
          }
        ]);
      }
    };

    return this;
  };
});
